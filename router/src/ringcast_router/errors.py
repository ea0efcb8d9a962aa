"""The exceptions of the router; all derive from `RouterError`."""


def printable(key: str) -> str:
    """Return the path of a key as it stands in errors and warnings, which have one line."""
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in key)


class RouterError(Exception):
    """The base of all exceptions that the router raises."""


class ConfigError(RouterError):
    """A configuration that cannot be used.

    Attributes:
        file: The file's name, or "" where the text came from no file.
        line: The line in the file, counted from 1, or 0 where no line can be named.
        key: The path of the key, such as `models.small.ttl`, or "".
    """

    def __init__(self, message: str, *, file: str = "", line: int = 0, key: str = "") -> None:
        self.message = message
        self.file = file
        self.line = line
        self.key = key
        place = f"{file}:{line}" if file and line else file or (f"line {line}" if line else "")
        super().__init__(": ".join(part for part in (place, printable(key), message) if part))


class StartError(RouterError):
    """A model server that did not become ready.

    Attributes:
        model: The model's id.
        reason: What went wrong, in one sentence.
        tail: The last lines of the server's output; "" where it printed nothing.
    """

    def __init__(self, model: str, reason: str, tail: str = "") -> None:
        self.model = model
        self.reason = reason
        self.tail = tail
        super().__init__(f"{model}: {reason}")


class Refused(RouterError):
    """A request that the router answers itself, with an error.

    Attributes:
        status: The HTTP status, 400 to 599.
        message: What is wrong and what would be right, for the client's user.
        type: The `type` of OpenAI's error object, such as `invalid_request_error`.
        code: The `code` of OpenAI's error object, such as `model_not_found`.
        param: The name of the parameter that is wrong, or None.
        retry_after: Seconds after which another try makes sense, or None. Sent as `Retry-After`.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        self.status = status
        self.message = message
        self.type = type
        self.code = code
        self.param = param
        self.retry_after = retry_after
        super().__init__(message)
