"""Operations that have a fast form: a file begins with definitions, their forms follow."""
