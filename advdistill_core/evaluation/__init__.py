"""How models are measured: answers, their statistics, behaviour and contamination."""
