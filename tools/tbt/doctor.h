// What `tbt doctor` finds out about a machine, check by check. The checks read files below a root
// folder (the tests give one of their own) and a few values of this process; they change nothing.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace tbt::tool {

enum class CheckResult : uint8_t {
  kOk,       // there and usable
  kMissing,  // not there; needed only for what the text says
  kFix,      // stands in the way of something that would otherwise work
};
const char* check_result_name(CheckResult result) noexcept;

struct Check {
  std::string name;  // stable, for scripts
  CheckResult result = CheckResult::kOk;
  std::string text{};   // what was found
  std::string next{};   // what to do, empty if nothing
  bool needed = false;  // the emulated fabric does not work without it
};

// Values that are not files. `limits` are those of this process; UINT64_MAX: unlimited.
struct Machine {
  std::string root;  // "" for the machine itself
  std::string kernel_release;
  uint64_t memlock_bytes = 0;
  uint64_t open_files = 0;
  std::string front_door_dir;  // where our libibverbs.so.1 should be
  std::string runtime_dir;
};

Check check_kernel(const Machine& machine);
Check check_controllers(const Machine& machine);
Check check_domains(const Machine& machine);
Check check_thunderbolt_net(const Machine& machine);
Check check_tbstream(const Machine& machine);
Check check_vfio(const Machine& machine);
Check check_memlock(const Machine& machine);
Check check_open_files(const Machine& machine);
Check check_libibverbs(const Machine& machine);
Check check_front_door(const Machine& machine);
Check check_ucx_device(const Machine& machine);
Check check_runtime_dir(const Machine& machine);

// All of the above, in an order from the hardware up. Those of the fabrics are made by doctor.cc.
std::vector<Check> check_machine(const Machine& machine);

// 0 unless something is missing or to be fixed that the emulated fabric needs.
int exit_code_of(const std::vector<Check>& checks) noexcept;

}  // namespace tbt::tool
