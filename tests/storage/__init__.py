import pytest

# So that a failure in the contract shows values, as one in a test module does.
pytest.register_assert_rewrite("tests.storage.contract")
