"""Files of a run folder are replaced whole or not at all."""

import pytest

from metacpo.run_folder import replacing


def test_a_file_is_the_old_one_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "film.mp4"
    path.write_text("old")
    with replacing(path) as part:
        assert part.suffix == ".mp4" and part.parent == tmp_path  # encoders go by the suffix
        part.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_of_a_file_that_fails_nothing_is_left(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), replacing(path) as part:
        part.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
