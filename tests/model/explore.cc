#include "tests/model/explore.h"

#include <algorithm>
#include <unordered_map>

namespace tbt::model {

namespace {

// Digests, open addressing; 0 is no digest.
class Seen {
 public:
  Seen() : slots_(1 << 16) {}

  // False if it was there already.
  bool add(uint64_t digest) {
    if (digest == 0) digest = 1;
    if (count_ * 2 >= slots_.size()) grow();
    uint64_t& slot = place(digest);
    if (slot == digest) return false;
    slot = digest;
    ++count_;
    return true;
  }

 private:
  uint64_t& place(uint64_t digest) noexcept {
    size_t at = digest >> 20;
    while (slots_[at & (slots_.size() - 1)] != 0 && slots_[at & (slots_.size() - 1)] != digest)
      ++at;
    return slots_[at & (slots_.size() - 1)];
  }
  void grow() {
    std::vector<uint64_t> old(slots_.size() * 2);
    std::swap(old, slots_);
    for (const uint64_t digest : old) {
      if (digest != 0) place(digest) = digest;
    }
  }

  std::vector<uint64_t> slots_;
  size_t count_ = 0;
};

struct Reached {
  uint32_t from = 0;
  Step step;
};

// A digest that forgets what matters would hide states. For one digest in so many, what follows it
// is compared for some of the ways that lead to it.
constexpr uint64_t kAuditOneIn = 64;
constexpr size_t kAuditsMost = 3000;

struct Audit {
  uint64_t digest = 0;
  Reached way;
};

class Exploration {
 public:
  Exploration(const Scenario& scenario, Bug bug) : machine_(scenario, bug) {}

  Finding run(uint64_t states_most) {
    reached_.push_back({});
    seen_.add(machine_.digest());
    for (uint32_t at = 0; at < reached_.size() && finding_.broken.empty(); ++at) {
      if (reached_.size() >= states_most) return finish(false);
      follow(at);
    }
    return finish(true);
  }

 private:
  Finding finish(bool whole) {
    for (size_t i = 0; i < audits_.size() && finding_.broken.empty(); ++i) audit(audits_[i]);
    finding_.states = reached_.size();
    finding_.whole = whole && finding_.broken.empty();
    return finding_;
  }

  void go_to(uint32_t at) {
    way_.clear();
    for (uint32_t i = at; i != 0; i = reached_[i].from) way_.push_back(reached_[i].step);
    std::ranges::reverse(way_);
    machine_.restart();
    for (const Step& step : way_) machine_.take(step);
  }

  void follow(uint32_t at) {
    go_to(at);
    const uint64_t here = machine_.digest();
    uint64_t sum = 0;
    machine_.steps(steps_);
    if (steps_.empty()) ++finding_.ends;
    for (size_t i = 0; i < steps_.size(); ++i) {
      if (i != 0) go_to(at);
      machine_.take(steps_[i]);
      ++finding_.steps;
      if (!machine_.broken().empty()) return tell(at, steps_[i]);
      const uint64_t next = machine_.digest();
      sum += next;
      if (seen_.add(next)) {
        reached_.push_back({at, steps_[i]});
      } else if (next % kAuditOneIn == 0 && audits_.size() < kAuditsMost) {
        audits_.push_back({next, {at, steps_[i]}});
      }
    }
    if (here % kAuditOneIn == 0) followed_[here] = sum;
  }

  void audit(const Audit& audit) {
    const auto first = followed_.find(audit.digest);
    if (first == followed_.end()) return;
    uint64_t sum = 0;
    go_to(audit.way.from);
    machine_.take(audit.way.step);
    std::vector<Step> steps;
    machine_.steps(steps);
    for (size_t i = 0; i < steps.size(); ++i) {
      if (i != 0) {
        go_to(audit.way.from);
        machine_.take(audit.way.step);
      }
      machine_.take(steps[i]);
      sum += machine_.digest();
    }
    ++finding_.audits;
    if (sum == first->second) return;
    tell(audit.way.from, audit.way.step);
    finding_.broken = "the digest: two ways to this state lead on differently";
  }

  void tell(uint32_t at, Step last) {
    finding_.broken = machine_.broken();
    go_to(at);
    way_.push_back(last);
    machine_.set_telling(true);
    machine_.restart();
    for (const Step& step : way_) {
      machine_.take(step);
      if (!machine_.told().empty()) finding_.story.push_back(machine_.told());
    }
    machine_.set_telling(false);
  }

  Machine machine_;
  Seen seen_;
  std::vector<Reached> reached_;
  std::vector<Step> way_;
  std::vector<Step> steps_;
  std::vector<Audit> audits_;
  std::unordered_map<uint64_t, uint64_t> followed_;  // digests of what follows, added up
  Finding finding_;
};

}  // namespace

Finding explore(const Scenario& scenario, Bug bug, uint64_t states_most) {
  return Exploration(scenario, bug).run(states_most);
}

}  // namespace tbt::model
