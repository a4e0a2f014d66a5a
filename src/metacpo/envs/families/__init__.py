"""The families of tasks that come with the library."""
