from __future__ import annotations

import pytest

from raydistill.errors import ConfigError
from raydistill.export.formats.packages import has, need


def test_what_is_missing_is_said_with_what_brings_it() -> None:
    need("json", "--format onnx")
    assert has("torch")
    assert not has("no_such_package")
    with pytest.raises(ConfigError) as caught:
        need("no_such_package", "--format onnx")
    expected = "--format onnx: needs the package no_such_package; pip install no_such_package"
    assert str(caught.value) == expected
