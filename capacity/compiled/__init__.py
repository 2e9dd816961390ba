"""What the compiler says of the programs that will be served, for chips that are not here."""
