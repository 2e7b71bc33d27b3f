"""The console at /admin, above all domains: what people see and do in the browser."""
