import base64
import hashlib
import json
import zlib

from mingmoe_eval.report.embedding import (
    content_policy,
    data_tables_script,
    inert_json,
    json_bytes,
    packed,
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


def test_the_table_library_is_one_script_without_exports_that_cannot_end_its_element():
    script = data_tables_script()
    assert "globalThis.DataTable=" in script
    assert "export{" not in script
    assert "</script" not in script.lower()
