"""Messages and stubs of the services, generated from `protos/`: never edited by hand."""
