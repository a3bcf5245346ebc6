import json
from pathlib import Path

import pytest

from mingmoe_eval import published
from mingmoe_eval.errors import UsageError
from mingmoe_eval.published import published_keys, published_rows

SPEC = Path(__file__).resolve().parents[1].parent / "shared" / "specs" / "published_results.json"


def test_every_source_is_cited_with_its_table():
    for key in published_keys():
        for row in published_rows([key]):
            assert row.citation
            assert row.note


def test_every_doubt_belongs_to_a_printed_value():
    for row in published_rows(published_keys()):
        assert set(row.suspect) <= {k for k, v in row.values.items() if v is not None}


def test_values_are_percentages():
    values = [v for row in published_rows(published_keys()) for v in row.values.values()]
    assert all(v is None or 0 <= v <= 100 for v in values)


def test_nothing_was_filled_in_where_nothing_could_be_read():
    for row in published_rows(["ming-moe", "sparsedoctor"]):
        assert set(row.values.values()) == {None}
        assert "NOT FOUND" in row.note


def test_an_unknown_source_is_named_with_those_there_are():
    with pytest.raises(UsageError, match=r"'gpt9', 'x'; there are: apollo, camec"):
        published_rows(["apollo", "gpt9", "x"])


def test_the_mean_of_the_two_totals_is_the_printed_average():
    for row in published_rows(["huatuogpt2"]):
        values = row.values
        totals = values["pharmacist2023_pharmacy/total"], values["pharmacist2023_tcm/total"]
        assert values["pharmacist2023/average"] == pytest.approx(sum(totals) / 2, abs=0.1)


def test_every_source_file_is_written_one_row_a_line():
    for key in published_keys():
        text = (Path(published.__file__).parent / f"{key}.json").read_text("utf-8")
        rows = sum(len(table["rows"]) for table in json.loads(text)["tables"])
        assert sum(line.lstrip().startswith('{"model"') for line in text.splitlines()) == rows


@pytest.mark.skipif(not SPEC.exists(), reason="the collected published results are not here")
def test_every_collected_benchmark_result_is_here_with_its_doubt():
    folder = Path(published.__file__).parent
    files = [json.loads((folder / f"{key}.json").read_text("utf-8")) for key in published_keys()]
    here = {
        (
            source["source"],
            table["table"],
            row["model"],
            *(table["columns"][key][part] for part in ("benchmark", "subset", "metric")),
        ): (value, row.get("suspect", {}).get(key, ""))
        for source in files
        for table in source["tables"]
        for row in table["rows"]
        for key, value in row["values"].items()
    }
    sizes = ("adapter size", "trainable parameters", "parameters")
    collected = [r for r in json.loads(SPEC.read_text("utf-8")) if r["benchmark"] not in sizes]
    read_later = {key for key in here if "MedCare" in key[0]}
    assert len(here) == len(collected) + len(read_later)
    for r in collected:
        key = tuple(r[k] for k in ("source", "table", "model", "benchmark", "subset", "metric"))
        doubt = r["note"].partition("; SUSPECT: ")[2] or FOUND_LATER.get((key[2], key[4]), "")
        assert here[key] == (r["value"], doubt)


# Averages that the printed categories do not have: CAMEC's Table 2.
FOUND_LATER = {
    ("Qwen3-8B", "CMB-Exam / average"): "the mean of the printed categories is 58.19",
    ("CAMEC (Qwen3-8B based)", "CMB-Exam / average"): "the mean of the printed categories is 73.51",
}


def test_a_printed_average_that_its_cells_do_not_have_is_doubted():
    categories = ("physician", "nurse", "pharmacist", "technician", "disciplines", "graduate")
    rows = [row for row in published_rows(["camec"]) if "cmb_exam/average" in row.values]
    for row in rows:
        mean = sum(row.values[f"cmb_exam/{name}"] for name in categories) / len(categories)
        fits = abs(mean - row.values["cmb_exam/average"]) < 0.011
        assert fits is ("cmb_exam/average" not in row.suspect)


def test_medcare_s_cells_are_whole_numbers_of_the_questions_that_our_groups_pool():
    rows = [row for row in published_rows(["medcare"]) if "cmmlu_ming" in row.values]
    assert len(rows) == 20
    for row in rows:
        right = row.values["cmmlu_ming"] / 100 * 1354
        assert abs(right - round(right)) <= 0.005 / 100 * 1354 + 1e-9
        if "authors' own cells" in row.remarks["ceval_ming"]:
            right = row.values["ceval_ming"] / 100 * 41
            assert abs(right - round(right)) <= 0.05 / 100 * 41  # some cells have one decimal


NEW_ROWS = SPEC.with_name("benchmarks_2026.md")


@pytest.mark.skipif(not NEW_ROWS.exists(), reason="the collected MedCare rows are not here")
def test_medcare_s_first_table_is_as_it_was_read():
    table = NEW_ROWS.read_text("utf-8")
    lines = [line for line in table.splitlines() if line.count("|") == 11]
    read = {cells[0]: [float(c) for c in cells[1:]] for cells in map(_cells, lines[2:])}
    here = {r.model: list(r.values.values()) for r in published_rows(["medcare"])[:15]}
    assert here == read


def _cells(line):
    return [cell.strip() for cell in line.strip().strip("|").split("|")]
