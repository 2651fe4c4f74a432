"""The algebra of model names."""
import pytest

from lib import names
from lib.errors import StudyError


@pytest.mark.parametrize("name, parts, family, float_name", [
    ("dense", ("dense", "vanilla", "", "", ""), "dense", "dense"),
    ("imp-70", ("imp-70", "vanilla", "", "", ""), "imp", "imp-70"),
    ("imp-62.5 + rmc", ("imp-62.5", "rmc", "", "", ""), "imp", "imp-62.5 + rmc"),
    ("dense + ptq8", ("dense", "vanilla", "ptq8", "", ""), "dense", "dense"),
    ("truncated-3-alternate + distil + qat8", ("truncated-3-alternate", "distil", "qat8", "", ""), "truncated",
     "truncated-3-alternate + distil"),
    ("theseus-3-constant", ("theseus-3-constant", "vanilla", "", "", ""), "theseus", "theseus-3-constant"),
    ("org/a-model-6 + pkd + ptq4", ("org/a-model-6", "pkd", "ptq4", "", ""), "org/a-model-6", "org/a-model-6 + pkd"),
    ("imp-70-after", ("imp-70", "vanilla", "", "after", ""), "imp", "imp-70-after"),
    ("dense-2x + ptq8", ("dense", "vanilla", "ptq8", "2x", ""), "dense", "dense-2x"),
    ("truncated-3-alternate-2x", ("truncated-3-alternate", "vanilla", "", "2x", ""), "truncated", "truncated-3-alternate-2x"),
    ("imp-70 + rmc_one_run", ("imp-70", "rmc", "", "", "one_run"), "imp", "imp-70 + rmc_one_run"),
    ("imp-70 + rmc-05 + ptq8", ("imp-70", "rmc", "ptq8", "", "05"), "imp", "imp-70 + rmc-05"),
])
def test_a_name_is_a_recipe(name, parts, family, float_name):
    found = names.parse(name)
    assert found == parts and found.family == family and found.float_name == float_name


@pytest.mark.parametrize("name, says", [
    ("truncated3", "did you mean 'truncated'"), ("theseus-3-linear", "did you mean 'theseus'"), ("imp-x", "'imp'"), ("", "not a model"),
    ("imp-70 + rcm", "'rcm' is no loss and no quantisation of this study; did you mean 'rmc'"),
    ("imp-70 + ptq", "did you mean 'ptq"), ("dense + ptq8 + distil", "must read STRUCTURE"),
    ("dense + distil + rmc", "must read STRUCTURE"), ("dense + ptq8 + ptq4", "must read STRUCTURE"),
    ("imp-70-befor", "not a model name"), ("imp-70 + rmc-101", "'rmc-101' is no loss"), ("imp-70 + rmc_one", "did you mean 'rmc_one_run'"),
    ("imp-70 +rmc", "'imp-70 +rmc' is not a model name"),
])
def test_what_is_no_recipe_is_told(name, says):
    with pytest.raises(StudyError) as error:
        names.parse(name)
    assert says in str(error.value) and "\n" not in str(error.value)
