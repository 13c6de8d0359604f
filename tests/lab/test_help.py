"""Every command of the laboratory says how it is used."""
import pytest

from ..test_tools.commands import ROOT, load_tool

COMMANDS = sorted('.'.join(path.relative_to(ROOT).with_suffix('').parts) for path in (ROOT / 'lab').rglob('*.py')
                  if 'run_tool(main' in path.read_text())


@pytest.mark.parametrize('name', COMMANDS)
def test_help(name, capsys):
    with pytest.raises(SystemExit) as caught:
        load_tool(name).main(['--help'])
    assert caught.value.code in (0, None)
    assert 'usage:' in capsys.readouterr().out


def test_all_are_found():
    assert len(COMMANDS) >= 9
