// The simulator's own test: every bug that it can put into a run must be noticed.
#pragma once

namespace tbt::sim {

// Prints a line per bug: in how many seeds it showed, how many noticed it, and which checkers.
// Exit status: 1 if a bug was missed, or a seed without one failed.
int self_test();

}  // namespace tbt::sim
