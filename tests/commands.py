"""What the command line says."""

from kljax.__main__ import main


def failure(capsys, *arguments):
    """What a failing command says: status 2, one line on stderr, nothing on stdout."""
    assert main(list(arguments)) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("kljax: ") and err.endswith("\n") and err.count("\n") == 1
    return err.removeprefix("kljax: ").rstrip()
