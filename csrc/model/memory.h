/* Store buffers, as those of x86: for THREADS threads and WORDS words. `me` is the thread at work. */

byte mem[WORDS];
chan buffer[THREADS] = [3] of { byte, byte };
hidden byte word, value;

#define STORE(at, what) buffer[me]!at, what /* seen by others some time later, in order: a store up to release */
#define FENCED empty(buffer[me])            /* waits for that: after a STORE it makes it sequentially consistent */

active proctype memory()
{
    do
    :: d_step { buffer[0]?word, value -> mem[word] = value }
    :: d_step { buffer[1]?word, value -> mem[word] = value }
    :: d_step { buffer[2]?word, value -> mem[word] = value }
#if THREADS > 3
    :: d_step { buffer[3]?word, value -> mem[word] = value }
#endif
#if THREADS > 4
    :: d_step { buffer[4]?word, value -> mem[word] = value }
#endif
    od
}
