"""Memory lengths and credit-assignment lengths of finite tasks, computed."""
