"""Operations that have a fast form: each file begins with the plain definition."""
