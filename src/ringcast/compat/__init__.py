"""Drop-in modules: the public interfaces of other event libraries, on compiled code."""
