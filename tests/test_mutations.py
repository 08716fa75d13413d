import pytest

from mutations import FAULTS, ROOT, WIDTH


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.what.replace(" ", "_"))
def test_a_fault_applies_to_the_package_and_its_tests_exist(fault):
    source = (ROOT / fault.path).read_text()
    faulty = fault.faulty(source)
    assert faulty != source
    compile(faulty, fault.path, "exec")
    for path in fault.test_paths:
        assert (ROOT / path).is_file()


def test_faults_are_told_apart_by_their_words():
    assert len({fault.what for fault in FAULTS}) == len(FAULTS) == 40
    assert all(len(fault.what) < WIDTH for fault in FAULTS)


def test_a_text_that_has_drifted_is_named():
    with pytest.raises(ValueError, match="must hold the text of"):
        FAULTS[0].faulty("")
    with pytest.raises(ValueError, match="got 2 times"):
        FAULTS[0].faulty(2 * FAULTS[0].old)
