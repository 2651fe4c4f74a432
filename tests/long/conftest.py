import pytest

from tests.long import smoke


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    """What the smoke profile finds when nothing happens to it."""
    folder = smoke.clone(tmp_path_factory.mktemp("whole") / "study")
    assert smoke.start(folder).wait() == 0, smoke.said(folder)
    return smoke.tables(folder)
