#include "tests/model/scenario.h"

namespace tbt::model {

namespace {

constexpr Request kSend1{WrOpcode::kSend, 1};
constexpr Request kSend2{WrOpcode::kSend, 2};
constexpr Request kWrite1{WrOpcode::kRdmaWrite, 1};
constexpr Request kWrite2{WrOpcode::kRdmaWrite, 2};
constexpr Request kWriteImm1{WrOpcode::kRdmaWriteImm, 1};
constexpr Request kRead1{WrOpcode::kRdmaRead, 1};
constexpr Request kRead2{WrOpcode::kRdmaRead, 2};
constexpr Request kAtomic{WrOpcode::kFetchAdd, 1};

Scenario of(std::string name, std::vector<Request> first, std::vector<Request> second = {}) {
  Scenario scenario;
  scenario.name = std::move(name);
  scenario.requests[0] = std::move(first);
  scenario.requests[1] = std::move(second);
  return scenario;
}

}  // namespace

std::vector<Scenario> short_scenarios() {
  std::vector<Scenario> all;
  all.push_back(of("two SENDs", {kSend2, kSend1}));
  all.push_back(of("WRITE and READ", {kWrite1, kRead1}));
  all.push_back(of("two atomics", {kAtomic, kAtomic}));
  all.push_back(of("a receive that comes late", {kSend1, kWrite1}));
  all.back().posted_late[1] = 1;
  all.push_back(of("both ways", {kSend1}, {kSend1}));
  all.push_back(of("go-back-N", {kSend2, kSend1}));
  all.back().go_back_n = true;
  all.back().copies = 0;
  all.push_back(of("silence", {kSend1}));
  all.back().losses = 3;
  all.back().retry_cnt = 1;
  all.back().go_back_n = true;
  return all;
}

std::vector<Scenario> long_scenarios() {
  std::vector<Scenario> all = {
      of("SEND, WRITE, READ", {kSend2, kWrite1, kRead2}),
      of("READ, fenced SEND, WRITE", {kRead2, {WrOpcode::kSend, 1, true}, kWrite2}),
      of("atomic, READ, atomic", {kAtomic, kRead2, kAtomic}),
      of("WRITE with immediate, SENDs", {kWriteImm1, kSend2, kSend1}),
      of("READs both ways", {kRead2, kSend1}, {kRead1, kSend1}),
      of("go-back-N", {kSend2, kRead2, kSend1}),
  };
  all[3].posted_late[1] = 2;
  all[5].go_back_n = true;
  all.push_back(of("two losses, far overtaken", {kSend2, kRead2}));
  all.back().losses = all.back().overtaken = all.back().timeouts = 2;
  all.back().copies = 0;
  return all;
}

}  // namespace tbt::model
