import base64
import hashlib
import importlib
import importlib.util
import json
import zlib
from pathlib import Path

from mingmoe_eval.report import libraries
from mingmoe_eval.report.embedding import (
    content_policy,
    inert_json,
    json_bytes,
    packed,
)
from mingmoe_eval.report.libraries import (
    DATA_TABLES,
    VL_CONVERT,
    can_draw,
    data_tables_script,
)


def test_embedded_json_cannot_end_its_element_and_reads_back():
    value = {"text": "</script><script>alert(1)</script><!-- & \u2028"}
    text = str(inert_json(value))
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == value


def test_a_lone_surrogate_survives_as_its_escape():
    assert json.loads(json_bytes(["a\udc80"])) == ["a\udc80"]


def test_numbers_that_json_lacks_become_words():
    assert json_bytes({"ll": (float("-inf"), float("nan"), 1.0)}) == b'{"ll":["-inf","nan",1.0]}'


def test_packed_data_is_zlib_in_base64():
    assert zlib.decompress(base64.b64decode(packed("文".encode()))) == "文".encode()


def test_the_policy_names_each_script_and_style_by_its_hash_and_forbids_the_rest():
    policy = content_policy(["let a"], ["p {}"])
    script = base64.b64encode(hashlib.sha256(b"let a").digest()).decode()
    assert f"script-src 'sha256-{script}'" in policy
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy


def test_all_that_is_relied_on_in_the_drawing_libraries_is_there():
    itables = importlib.util.find_spec("itables")
    assert Path(itables.origin).parent.joinpath(DATA_TABLES).is_file(), (
        f"itables lost {DATA_TABLES}"
    )
    if can_draw():
        drawing = importlib.import_module("vl_convert")
        lost = [name for name in VL_CONVERT if not hasattr(drawing, name)]
        assert not lost, f"vl-convert lost {lost}"


def test_the_package_knows_these_libraries_in_one_file_alone():
    for module in Path(libraries.__file__).parents[1].rglob("*.py"):
        if module != Path(libraries.__file__):
            text = module.read_text("utf-8")
            assert "itables" not in text, module
            assert "import vl_convert" not in text, module


def test_the_table_library_is_one_script_without_exports_that_cannot_end_its_element():
    script = data_tables_script()
    assert "globalThis.DataTable=" in script
    assert "export{" not in script
    assert "</script" not in script.lower()
