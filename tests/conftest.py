"""Options of the tests, and where their fixtures are."""


def pytest_addoption(parser):
    parser.addoption('--fuzz', type=int, default=5000, help='changed inputs of `-m long` in test_fuzz.py')
    parser.addoption('--fuzz-seed', type=int, default=0, help='the chance by which they are changed')


def pytest_configure(config):
    """The process that hands the tests to others runs none: before they start it need not import PyTorch."""
    if hasattr(config, 'workerinput') or not config.getoption('numprocesses', None):
        config.pluginmanager.import_plugin('shared_fixtures')
