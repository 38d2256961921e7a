"""Tests on several hosts: `make test-cluster`."""
