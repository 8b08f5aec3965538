"""What the tests of hostile files share."""

import pytest


@pytest.fixture
def fails(capsys):
    """Run a command that must fail, and return its last line."""

    def run(main, *args):
        with pytest.raises(SystemExit) as stop:
            main([str(arg) for arg in args])
        out, err = capsys.readouterr()
        assert stop.value.code == 2 and 'Traceback' not in out + err, err
        return err.strip().splitlines()[-1]

    return run
