"""Runs generated code where it can do no harm, and says whether it passes its tests."""
