-- ARGV: numbers (the quota, tokens). Added once, above the capacity if need be. Answers: tokens.
t = t + read('<d', ARGV[1], more)
save()
return {t}
