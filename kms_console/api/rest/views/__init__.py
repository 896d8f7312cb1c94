"""Views of the native API, one file a noun: read the request, call the one function, show what it returns."""
