"""What is made of a run: lines on the terminal, JUnit XML, JSON, and a page that compares targets."""
