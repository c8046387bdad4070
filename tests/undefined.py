"""What templates of the tests find where there is nothing."""

from typing import Any

import jinja2
from jinja2.utils import missing


class Undefined(jinja2.Undefined):
    """A variable may be absent, as pages leave out what they don't have; an attribute of something that is there is misspelt."""

    def __new__(cls, hint: str | None = None, obj: Any = missing, *args: Any, **kwargs: Any) -> Any:
        if obj is missing:
            return super().__new__(cls)
        return jinja2.StrictUndefined(hint, obj, *args, **kwargs)
