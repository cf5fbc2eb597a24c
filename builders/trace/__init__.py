"""The second front end: real modules, recorded on the `meta` device as model graphs."""
