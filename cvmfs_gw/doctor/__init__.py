"""The doctor: looks at configuration, machine and web server, and says what is wrong and how to mend it."""
