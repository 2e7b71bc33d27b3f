"""The domain logic, without Django, a clock or network access."""
