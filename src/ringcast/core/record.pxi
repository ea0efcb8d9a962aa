# Records: event classes of a fixed binary layout. ringcast.records makes the classes; here is what their instances,
# their fields and batches of them are. The bytes of published ones stand in the ring itself (csrc/rc_record.h).

cdef enum:
    SMALL = 40        # bytes of a record that are part of the object itself

# Bytes of a field, by the characters of the module `struct`; 0: as many as it says.
cdef dict SIZES = {**dict.fromkeys("?bB", 1), **dict.fromkeys("hHe", 2), **dict.fromkeys("iIf", 4),
                   **dict.fromkeys("qQd", 8), "s": 0}

cdef Py_ssize_t ONE = 1   # the shape of every record's buffer: never written, as several threads may read it


layout_numbers = count_from(1)
cdef object laid_out = weakref.WeakSet()   # record classes that have a layout: each gets one, once
cdef object binding = threading.RLock()    # held while one is added; re-entrant, as finalizers may come in anywhere


@cython.final
@cython.no_gc_clear
cdef class Layout:
    """Where the fields of a record class are. Made by ringcast.records; does not change once it is bound."""
    cdef readonly Py_ssize_t size        # bytes
    cdef readonly bytes format           # of the whole, as in PEP 3118
    cdef readonly tuple fields           # RecordFields
    cdef readonly tuple defaults         # of the last fields
    cdef readonly object record_class    # set once the class is there
    cdef object _dtype                   # NumPy's, once it was asked for; guarded by the object's critical section
    cdef uint64_t number                 # no other has had it

    def __cinit__(self, Py_ssize_t size, bytes format, tuple fields, tuple defaults):
        cdef RecordField field
        if len(defaults) > len(fields):
            raise ValueError(f"{len(fields)} fields cannot have {len(defaults)} defaults")
        for each in fields:
            field = <RecordField?>each
            if field.layout_number != 0:
                raise ValueError(f"{field!r} belongs to another layout")
            if not 0 <= field.offset <= size - field.size:
                raise ValueError(f"{field!r} is not within the {size} bytes of a record")
        self.size = size
        self.format = format
        self.fields = fields
        self.defaults = defaults
        self.number = next(layout_numbers)
        for field in fields:
            field.layout_number = self.number

    def bind(self, record_class):
        """Says whose layout this is. Records rely on it for as long as they live, so that is said once.

        Raises:
            TypeError: this is no class of records with this layout, or one of both is bound already."""
        if (
            not PyType_Check(<PyObject *>record_class)
            or not PyType_IsSubtype(<PyTypeObject *>record_class, <PyTypeObject *>Record)
            or record_class.__dict__.get("__layout__") is not self
            or "__class__" in record_class.__dict__   # Record's says that the class of a record does not change
        ):
            raise TypeError(f"{shown(record_class)} is no class of records with this layout")
        with binding:
            if self.record_class is not None or record_class in laid_out:
                raise TypeError("a layout is bound to one class, once")
            laid_out.add(record_class)
            self.record_class = record_class

    @property
    def dtype(self):
        with cython.critical_section(self):   # two threads may make one at once, and a third have that of the first
            return self._dtype

    @dtype.setter
    def dtype(self, dtype):
        with cython.critical_section(self):
            self._dtype = dtype


cdef Layout layout_of(event_class):
    """The layout of a record class, or None where it is none.

    Raises:
        RecordError: it is derived from Record, but none that `ringcast.record` has made, or robbed of its layout."""
    if not PyType_IsSubtype(<PyTypeObject *>event_class, <PyTypeObject *>Record) or event_class is Record:
        return None
    layout = getattr(event_class, "__layout__", None)
    if not isinstance(layout, Layout) or (<Layout>layout).record_class is not event_class:
        raise RecordError(f"{event_class.__name__} is no record type: it has no layout of its own, as record gives one")
    return <Layout>layout


@cython.final
@cython.no_gc_clear
cdef class RecordField:
    """A field of a record class. `Trade.price` tells where it is, `trade.price` what it holds.

    Attributes:
        name: a str.
        offset: from the record's beginning, in bytes.
        size: in bytes.
        format: its type, one of the characters of the module `struct`: "?bBhHiIqQefd", "s" for fixed bytes.
        unit: of a time, as NumPy writes it ("ns"); else None.
    """
    cdef readonly str name
    cdef readonly Py_ssize_t offset
    cdef readonly Py_ssize_t size
    cdef readonly str format
    cdef readonly str unit
    cdef readonly str kind     # "M" a time, "m" a duration, else ""
    cdef Py_UCS4 code
    cdef object low, high      # the least and the greatest int
    cdef uint64_t layout_number

    def __cinit__(self, str name, Py_ssize_t offset, Py_ssize_t size, str format, str kind="", str unit=None):
        if len(format) != 1 or format not in SIZES or size != (SIZES[format] or size) or size < 1:
            raise ValueError(f"no field of a record has {size} bytes of format {format!r}")
        self.name = name
        self.offset = offset
        self.size = size
        self.format = format
        self.kind = kind
        self.unit = unit
        self.code = format[0]
        bits = size * 8
        self.low, self.high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if format in "bhiq" else (0, 2**bits - 1)

    def __get__(self, instance, owner):
        if instance is None:
            return self
        if not isinstance(instance, Record) or (<Record>instance).known_layout().number != self.layout_number:
            raise TypeError(f"{self!r} is no field of {type(instance).__name__}")
        return self.read((<Record>instance).data + self.offset)

    def __set__(self, instance, value):   # beside __get__: no attribute of an instance hides it
        raise AttributeError(f"records do not change: {self.name!r} of {type(instance).__name__} cannot be set")

    def __repr__(self):
        return f"<RecordField {self.name!r}: {self.format!r}, {self.size} bytes at {self.offset}>"

    cdef object read(self, const char *data):
        cdef float single
        cdef double number
        if self.code == u"d":
            memcpy(&number, data, 8)
            return number
        if self.code == u"f":
            memcpy(&single, data, 4)
            return single
        if self.code == u"e":
            return PyFloat_Unpack2(data, PY_LITTLE_ENDIAN)
        if self.code == u"s":
            return data[:self.size].rstrip(b"\0")
        if self.code == u"?":
            return data[0] != 0
        if self.code in u"bhiq":
            return read_signed_bytes(data, self.size)
        return read_unsigned_bytes(data, self.size)

    def check(self, value):
        """Raises what writing the value would raise."""
        cdef bytearray space = bytearray(self.size)
        self.write(<char *>space, value)

    cdef write(self, char *data, value):
        """Raises TypeError or ValueError where the value does not fit."""
        cdef double number
        cdef bytes text
        if self.code in u"fde":
            number = value
            if self.code == u"d":
                memcpy(data, &number, 8)
            elif self.code == u"f":
                PyFloat_Pack4(number, data, PY_LITTLE_ENDIAN)   # raises OverflowError
            else:
                PyFloat_Pack2(number, data, PY_LITTLE_ENDIAN)
        elif self.code == u"s":
            text = bytes(value) if isinstance(value, (bytes, bytearray, memoryview)) else <bytes?>value
            if len(text) > self.size:
                raise ValueError(f"{self.size} bytes are the most, not {len(text)}")
            memset(data, 0, self.size)
            memcpy(data, <const char *>text, len(text))
        elif self.code == u"?":
            if value not in (0, 1):   # NumPy's bool is no int
                raise TypeError(f"True or False is needed, not {value!r}")
            data[0] = <char>(1 if value else 0)
        else:
            value = index(value)
            if not self.low <= value <= self.high:
                raise ValueError(f"an int from {self.low} to {self.high} is needed, not {value}")
            write_low_bytes(data, <uint64_t>(value & 0xFFFF_FFFF_FFFF_FFFF), self.size)


cdef check_names(Layout layout, str name, dict named):
    """Raises TypeError where one of the names is no field."""
    cdef RecordField field
    cdef list fields = [field.name for field in layout.fields]
    for unknown in sorted(named.keys() - fields):
        raise TypeError(f"{name} has no field {unknown!r}; it has {', '.join(fields)}")


cdef class Record:
    """The base of record classes, which `ringcast.record` makes: an immutable value with named fields of fixed size.

    A buffer of its bytes, read-only; equal to another of its class that has equal fields. Any thread may read it.
    """
    cdef PyObject *layout      # a reference; as a `Layout` it would have the garbage collector look at each record
    cdef char *data            # `small`, or memory of its own
    cdef char small[SMALL]
    cdef bint made             # whether its fields have been written

    def __cinit__(self):
        cdef Layout layout = layout_of(type(self))
        if layout is None:
            return
        if layout.size <= SMALL:
            self.data = self.small
        else:
            self.data = <char *>PyMem_Malloc(layout.size)
            if self.data == NULL:
                raise MemoryError
        memset(self.data, 0, layout.size)   # the padding too
        self.layout = <PyObject *>layout
        Py_INCREF(self.layout)

    def __init__(self, *values, **named):
        cdef Layout layout = layout_of(type(self))
        cdef RecordField field
        cdef Py_ssize_t at, count, first_default
        if layout is None:
            raise TypeError("Record has no fields itself: declare a class with @ringcast.record")
        if self.made:
            raise TypeError("records do not change: __init__ is called once")
        name = type(self).__name__
        count = len(layout.fields)
        if len(values) > count:
            names = ", ".join([f.name for f in layout.fields])
            raise TypeError(f"{name} takes {count} values ({names}), not {len(values)}")
        self.made = True
        first_default = count - len(layout.defaults)
        for at in range(count):
            field = <RecordField>layout.fields[at]
            if at < len(values):
                if named and field.name in named:
                    raise TypeError(f"{name} got two values for {field.name!r}")
                value = values[at]
            elif named and field.name in named:
                value = named.pop(field.name)
            elif at >= first_default:
                value = layout.defaults[at - first_default]
            else:
                check_names(layout, name, named)   # one may be meant for this field, and misspelt
                raise TypeError(f"{name} needs a value for {field.name!r}")
            try:
                field.write(self.data + field.offset, value)
            except (TypeError, ValueError, OverflowError) as error:
                raise type(error)(f"{name}.{field.name}: {error}") from None
        if named:
            check_names(layout, name, named)

    @property
    def __class__(self):   # read-only, also by object.__setattr__: the layout is that of the class
        return type(self)

    def __setattr__(self, name, value):
        raise AttributeError(f"records do not change: {name!r} of {type(self).__name__} cannot be set")

    def __delattr__(self, name):
        raise AttributeError(f"records do not change: {name!r} of {type(self).__name__} cannot be deleted")

    def __dealloc__(self):
        if self.data != self.small:
            PyMem_Free(self.data)
        if self.layout != NULL:
            Py_DECREF(self.layout)

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        cdef Layout layout = self.known_layout()
        fill_buffer(buffer, flags, self, self.data, layout.size, layout.size, layout.format, &ONE, &layout.size)

    cdef inline Layout known_layout(self):
        if self.layout == NULL:
            raise TypeError("Record has no fields itself")
        return <Layout>self.layout

    cdef tuple values(self):
        cdef RecordField field
        return tuple([field.read(self.data + field.offset) for field in self.known_layout().fields])

    def __eq__(self, other):
        if not isinstance(other, Record) or (<Record>other).layout != self.layout:
            return NotImplemented
        return self.values() == (<Record>other).values()

    def __hash__(self):
        return hash(self.values())

    def __reduce__(self):
        return type(self), self.values()

    def __replace__(self, **changes):
        names = [(<RecordField>field).name for field in self.known_layout().fields]
        return type(self)(**{**dict(zip(names, self.values())), **changes})

    def __repr__(self):
        if self.layout == NULL:
            return object.__repr__(self)
        shown = [
            f"{(<RecordField>field).name}={value!r}"
            for field, value in zip((<Layout>self.layout).fields, self.values())
        ]
        return f"{type(self).__qualname__}({', '.join(shown)})"


cdef Record blank_record(Layout layout):
    """A record whose bytes are still to be written."""
    cdef Record record = <Record>new_as_base_does(Record, layout.record_class, ())
    record.made = True
    return record


cdef Record new_record(Layout layout, const void *data):
    """A record with these bytes."""
    cdef Record record = blank_record(layout)
    memcpy(record.data, data, layout.size)
    return record


cdef fill_buffer(
    Py_buffer *buffer, int flags, owner, const void *data, Py_ssize_t length, Py_ssize_t item, bytes format,
    Py_ssize_t *shape, Py_ssize_t *stride,
):
    """Fills a read-only Py_buffer of one dimension."""
    cdef bint contiguous = length == 0 or stride[0] == item
    if flags & PyBUF_WRITABLE:
        raise BufferError("records do not change: their buffers are read-only")
    if not contiguous and flags & PyBUF_STRIDES != PyBUF_STRIDES:
        raise BufferError("the values of a field do not stand side by side: ask for strides")
    buffer.buf = <void *>data
    buffer.len = length
    buffer.itemsize = item
    buffer.readonly = 1
    buffer.ndim = 1
    buffer.format = <char *>format if flags & PyBUF_FORMAT else NULL
    buffer.shape = shape if flags & PyBUF_ND else NULL
    buffer.strides = stride if flags & PyBUF_STRIDES == PyBUF_STRIDES else NULL
    buffer.suboffsets = NULL
    buffer.internal = NULL
    buffer.obj = owner


@cython.final
@cython.no_gc_clear
@cython.collection_type("sequence")   # for match statements
cdef class RecordBatch:
    """Records side by side in memory: what a handler of batches is given of a record class. Read-only, for good.

    A sequence of records (`len`, `batch[0]`, `batch[1:3]`, iteration), a buffer of their bytes with their format, and
    the values of one field (`batch["price"]`, a memoryview); `batch.array` is a structured NumPy array. None of these
    copies anything: the memory is that of the queue itself, which stays as it is for as long as the batch, or anything
    made of it, is kept. Keeping one keeps 512 records in memory. Any thread may use it.
    """
    cdef Layout layout
    cdef rc_record_page *page    # held
    cdef const char *data
    cdef Py_ssize_t length

    __class_getitem__ = classmethod(GenericAlias)   # RecordBatch[Trade]: for annotations

    def __dealloc__(self):
        if self.page != NULL:
            rc_record_page_drop(self.page)

    def __reduce__(self):
        raise TypeError("a RecordBatch is a view of the queue's memory: it is not copied or pickled; list(batch) and "
                        "batch.array.copy() are")

    def __len__(self):
        return self.length

    def __getitem__(self, item):
        cdef Py_ssize_t at, start, stop, step
        cdef RecordField field
        if isinstance(item, str):
            for field in self.layout.fields:
                if field.name == item:
                    return memoryview(new_column(self, field))
            raise KeyError(item)
        if isinstance(item, slice):
            start, stop, step = item.indices(self.length)
            if step != 1:
                raise ValueError("slices of a batch have step 1; batch.array takes any")
            return new_batch(self.layout, self.page, self.data + start * self.layout.size, max(stop - start, 0))
        at = PyNumber_AsSsize_t(item, IndexError)
        if at < 0:
            at += self.length
        if not 0 <= at < self.length:
            raise IndexError(f"a batch of {self.length} records has none at {brief(item)}")
        return new_record(self.layout, self.data + at * self.layout.size)

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        cdef Layout layout = self.layout
        cdef Py_ssize_t size = layout.size
        fill_buffer(
            buffer, flags, self, self.data, self.length * size, size, layout.format, &self.length, &layout.size
        )

    @property
    def record_class(self):
        """The class of the records."""
        return self.layout.record_class

    @property
    def array(self):
        """A read-only structured NumPy array of the same memory."""
        import numpy
        return numpy.frombuffer(self, dtype=self.layout.record_class.dtype)

    def __array__(self, dtype=None, copy=None):
        import numpy
        return numpy.array(self.array, dtype=dtype, copy=copy)

    def __eq__(self, other):
        if not isinstance(other, RecordBatch):
            return NotImplemented
        return list(self) == list(other)

    __hash__ = None

    def __iter__(self):
        cdef Py_ssize_t at
        for at in range(self.length):
            yield new_record(self.layout, self.data + at * self.layout.size)

    def count(self, record):
        """How many of the records are equal to this one, an int."""
        return list(self).count(record)

    def index(self, record, start=0, stop=None):
        """The place of the first record that is equal to this one, an int.

        Args:
            record: any object.
            start, stop: where to look, as in a slice.

        Raises:
            ValueError: there is none.
        """
        return list(self).index(record, start, sys.maxsize if stop is None else stop)

    def __repr__(self):
        return f"<RecordBatch of {self.length} {self.layout.record_class.__qualname__}>"


Sequence.register(RecordBatch)


cdef RecordBatch new_batch(Layout layout, rc_record_page *page, const char *data, Py_ssize_t count):
    cdef RecordBatch batch = RecordBatch.__new__(RecordBatch)
    batch.layout = layout
    rc_record_page_hold(page)
    batch.page = page
    batch.data = data
    batch.length = count
    return batch


cdef RecordBatch batch_of(Layout layout, list records):
    """A batch of copies of these records."""
    cdef Py_ssize_t at, count = len(records)
    cdef RecordBatch batch
    cdef char *data
    # a page has room for as many as a batch that was filled from it; a mailbox may have more
    cdef rc_record_page *page = rc_record_page_new(layout.size * (1 + count // <Py_ssize_t>RC_PAGE_SLOTS))
    if page == NULL:
        raise MemoryError
    data = <char *>rc_record_in(page, 0, layout.size)
    for at in range(count):
        memcpy(data + at * layout.size, (<Record>records[at]).data, layout.size)
    batch = new_batch(layout, page, data, count)
    rc_record_page_drop(page)   # the batch has it now
    return batch


@cython.final
@cython.no_gc_clear
cdef class RecordColumn:
    """The values of one field of a batch: what its memoryview is of."""
    cdef RecordBatch batch
    cdef RecordField field
    cdef bytes format

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        cdef RecordBatch batch = self.batch
        fill_buffer(
            buffer, flags, self, batch.data + self.field.offset, batch.length * self.field.size, self.field.size,
            self.format, &batch.length, &batch.layout.size,
        )


cdef RecordColumn new_column(RecordBatch batch, RecordField field):
    cdef RecordColumn column = RecordColumn.__new__(RecordColumn)
    column.batch = batch
    column.field = field
    column.format = (field.format if field.code != u"s" else f"{field.size}s").encode()
    return column
