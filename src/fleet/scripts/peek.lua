-- Changes nothing. Answers: tokens, thousandths of the next one, held by nodes.
return {t, math.floor(f / 1000000000000), out}
