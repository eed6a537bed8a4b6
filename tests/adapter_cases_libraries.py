"""Cases of other libraries, and stand-ins of the same public attributes; see `adapter_cases`."""
