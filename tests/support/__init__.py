"""What the tests share: hosts, servers, sessions, data; and nothing that is a test."""
