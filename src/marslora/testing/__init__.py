"""Reference implementations and contract tests for plugins written outside this package."""
