"""What a plain scalar means: the core schema of YAML 1.2 with what Go's yaml.v3 takes besides.

That is: an octal number may begin with 0 alone, numbers may contain `_`, and dates become times in UTC. `on`, `yes` and
`12:30` are strings; a field that asks for a boolean takes the words of YAML 1.1 all the same (`decode.boolean`).
"""

import math
import re
from decimal import Decimal

from ringcast_router.config.tree import Scalar

_WORDS: dict[str, Scalar] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), math.inf),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf),
}
_INTEGERS = (
    (re.compile(r"[-+]?0[xX]([0-9a-fA-F]+)"), 16),
    (re.compile(r"[-+]?0[oO]?([0-7]+)"), 8),
    (re.compile(r"[-+]?0[bB]([01]+)"), 2),
    (re.compile(r"[-+]?(0|[1-9][0-9]*)"), 10),
)
_LARGEST = 2**64
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_TIME = re.compile(
    r"(\d{4})-(\d\d?)-(\d\d?)(?:(?:[Tt]| +)(\d\d?):(\d\d?):(\d\d?)(?:\.(\d*))?(?: *(Z|[-+]\d\d(?::?\d\d)?))?)?"
)


def resolve(text: str) -> Scalar:
    """Return what a plain (not quoted) scalar means; dates as text in the form of RFC 3339."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in "+-.0123456789":
        return text
    if time := _TIME.fullmatch(text):
        return _rfc3339(time)
    digits = text.replace("_", "")
    for pattern, base in _INTEGERS:
        if found := pattern.fullmatch(digits):
            sign = -1 if digits[0] == "-" else 1
            try:
                value = int(found[1], base) * sign
                return value if -_LARGEST // 2 <= value < _LARGEST else float(value)
            except (ValueError, OverflowError):  # more digits than Python reads, or a float holds
                return sign * math.inf
    return float(digits) if _FLOAT.fullmatch(digits) else text


def _rfc3339(time: re.Match[str]) -> str:
    year, month, day, hour, minute, second, fraction, zone = time.groups()
    date = f"{year}-{int(month):02}-{int(day):02}"
    if hour is None:
        return f"{date}T00:00:00Z"
    fraction = (fraction or "").rstrip("0")
    clock = f"{int(hour):02}:{int(minute):02}:{int(second):02}{'.' + fraction if fraction else ''}"
    if zone and zone != "Z":
        digits = zone[1:].replace(":", "").ljust(4, "0")
        zone = f"{zone[0]}{digits[:2]}:{digits[2:]}"
    return f"{date}T{clock}{zone or 'Z'}"


def write(value: Scalar) -> str:
    """Return the text that a macro of this value puts into another text; numbers as Go's `%v` writes them."""
    match value:
        case None:
            return "<nil>"
        case bool():
            return "true" if value else "false"
        case float():
            return _write_float(value)
        case _:
            return str(value)


def _write_float(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    number = Decimal(repr(value)).normalize()
    exponent = number.adjusted() if value else 0
    if -4 <= exponent < 6:
        return f"{number:f}"
    digits = "".join(map(str, number.as_tuple().digits))
    mantissa = digits[0] + ("." + digits[1:] if len(digits) > 1 else "")
    return f"{'-' if value < 0 else ''}{mantissa}e{exponent:+03}"
