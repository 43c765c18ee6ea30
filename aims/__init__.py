"""The AIM library: one folder per AI Module."""
