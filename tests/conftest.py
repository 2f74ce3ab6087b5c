"""Being here, this file lets the tests of every folder import `golden_data`."""
