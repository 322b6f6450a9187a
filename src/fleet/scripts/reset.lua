-- Full, but for what nodes hold. Answers: tokens.
t, f, z = c - out, 0, now
save()
return {t}
