import pytest

from mingmoe_eval.errors import DataError, UnknownTaskError
from mingmoe_eval.records import TaskSettings
from mingmoe_eval.task_catalog import load_catalog

FILES = {
    "_base.yaml": "output_type: generate_until\nmetadata: {suite: choice, form: direct}\n",
    "a.yaml": "include: _base.yaml\ntask: exam_a\ndataset: !function code.load\n",
    "b.yaml": "task: exam_b\noutput_type: multiple_choice\nmetadata: {suite: choice}\n",
    "inner.yaml": "group: inner\ntask: [exam_a]\n",
    "outer.yaml": "group: outer\ntask: [inner, exam_b]\n"
    "aggregate_metric_list: [{metric: score, weight_by_size: true}]\n",
}


@pytest.fixture
def folder(tmp_path):
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def names(definitions):
    return [definition.name for definition in definitions]


def test_a_definition_inherits_what_it_includes(folder):
    task = load_catalog(folder).definitions["exam_a"]
    assert (task.output_type, task.settings.suite, task.is_group) == (
        "generate_until",
        "choice",
        False,
    )


def test_a_group_selects_its_leaves_and_the_groups_below_it_first(folder):
    selection = load_catalog(folder).select(["outer"])
    assert names(selection.leaves) == ["exam_a", "exam_b"]
    assert names(selection.groups) == ["inner", "outer"]
    assert load_catalog(folder).definitions["outer"].weight_by_size


def test_a_glob_selects_by_name_and_nothing_twice(folder):
    selection = load_catalog(folder).select(["exam_*", "exam_a"])
    assert names(selection.leaves) == ["exam_a", "exam_b"]
    assert selection.groups == ()


def test_a_mistyped_name_is_answered_with_the_nearest(folder):
    with pytest.raises(UnknownTaskError, match="did you mean 'exam_a'"):
        load_catalog(folder).select(["exam_aa"])


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("medqa", ["usmle", "usmle_5opt", "mcmle"]),
        ("MedQA_ll", ["usmle_ll", "usmle_5opt_ll", "mcmle_ll"]),
        ("PLE", ["pharmacist2023"]),
        ("C-Eval", ["ceval_med", "ceval_ming"]),
        ("CMMLU_cot", ["cmmlu_med_cot", "cmmlu_ming_cot"]),
        ("MMLU medical", ["mmlu_med"]),
        ("MMLU-Pro", ["mmlu_pro_health"]),
        ("MedMCQA", ["medmcqa_val"]),
        ("CMB_ll", ["cmb_exam"]),  # several answers: no letters to compare
        ("CMeEE-V2", ["promptcblue_cmeee_v2"]),
        ("med", []),
        ("hellaswag", []),
    ],
)
def test_names_that_people_use_are_answered_with_ours(asked, meant):
    catalog = load_catalog()
    assert catalog.meant_by(asked) == meant
    if meant:
        hint = " or ".join(map(repr, meant))
        assert str(catalog.unknown(asked)).startswith(
            f"no task named {asked!r}; did you mean {hint}?"
        )


def test_names_and_globs_are_found_whatever_their_case(folder):
    (folder / "big.yaml").write_text("task: Big\n")
    catalog = load_catalog.__wrapped__(folder)
    selected = catalog.select(["EXAM_A", "bIG", "Exam_B*"])
    assert names(selected.leaves) == ["exam_a", "Big", "exam_b"]


def test_every_other_name_of_a_task_is_no_task_itself():
    catalog = load_catalog()
    others = {n.casefold() for d in catalog.definitions.values() for n in d.settings.also_called}
    assert others
    assert not others & set(catalog.names)


def test_a_name_of_lm_evals_own_passes_on_only_where_that_is_allowed(folder):
    assert load_catalog(folder).select(["hellaswag"], foreign=True).foreign == ("hellaswag",)
    with pytest.raises(UnknownTaskError):
        load_catalog(folder).select(["hella*"], foreign=True)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("bad.yaml", "task: [unclosed\n", "bad.yaml"),
        ("nameless.yaml", "output_type: generate_until\n", "neither `task:` nor `group:`"),
        ("twice.yaml", "task: exam_a\n", "is taken"),
        ("hole.yaml", "group: hole\ntask: [nowhere]\n", "'nowhere' is not defined"),
        ("list.yaml", "- task: x\n", "not a mapping"),
        ("lost.yaml", "include: gone.yaml\ntask: x\n", "gone.yaml"),
        (
            "key.yaml",
            "task: x\nmetadata: {suite: choice, readin: ming}\n",
            r"key.yaml: metadata.readin: no such setting; there are access, .*, reading, ",
        ),
        ("order.yaml", "task: x\nmetadata: {suite: choice, permute_options: all}\n", "permute_opt"),
        ("siute.yaml", "task: x\nmetadata: {siute: choice}\n", "metadata.siute: no such"),
        ("suite.yaml", "task: x\nmetadata: {suite: chioce}\n", "metadata.suite: .*'chioce'"),
        (
            "label.yaml",
            "task: x\nmetadata: {suite: choice, labels: 'yes'}\n",
            "metadata.labels: Expected `bool`, got `str`",
        ),
        ("kwargs.yaml", "task: x\ndataset_kwargs: medqa\n", "dataset_kwargs: a mapping"),
        ("named.yaml", "task: x\ndataset_kwargs: {benchmark: [a]}\n", "a name as its `bench"),
        ("flat.yaml", "task: x\nmetadata: 1.0\n", "flat.yaml: metadata: not a mapping"),
    ],
)
def test_a_faulty_definition_is_an_error_and_never_a_missing_task(folder, file, text, message):
    (folder / file).write_text(text)
    with pytest.raises(DataError, match=message):
        load_catalog(folder)


def test_settings_are_typed_and_a_foreign_tasks_metadata_are_its_own(folder):
    (folder / "c.yaml").write_text(
        "task: c\nmetadata: {suite: choice, version: 1.0, form: letters, labels: true}\n"
    )
    (folder / "d.yaml").write_text("task: d\nmetadata: {version: 2, homepage: x}\n")
    definitions = load_catalog(folder).definitions
    assert definitions["c"].settings == TaskSettings(
        suite="choice", version=1.0, form="letters", labels=True
    )
    assert definitions["d"].settings == TaskSettings(version=2)


def test_every_fault_is_listed_at_once(folder):
    (folder / "bad.yaml").write_text("a: b: c\n")
    (folder / "worse.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="2 faults"):
        load_catalog(folder)
