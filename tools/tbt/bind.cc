// tbt bind, tbt unbind: give a controller to VFIO, and back to the kernel.
#include <fmt/format.h>

#include <memory>

#include "sys/file_look.h"
#include "tbt/commands.h"
#include "tbt/driver_binding.h"

namespace tbt::tool {
namespace {

struct BindOptions {
  BindRequest request;
  bool yes = false;
};

void run_bind(const BindOptions& o) {
  BindPlan plan;
  if (const std::string wrong = plan_bind(o.request, plan); !wrong.empty()) fail(wrong);
  const auto& c = plan.controller;
  if (plan.functions.empty()) {
    fmt::print("{} is bound to vfio-pci already\n", c.function.address);
    return;
  }
  for (const std::string& loss : plan.losses) fmt::print("{}\n", loss);
  if (plan.in_use && !o.yes) {
    fail(fmt::format("{} is in use, as said above: --yes takes it all the same",
                     c.function.address));
  }
  if (const std::string wrong = apply_bind(o.request.root, plan, BindingSystem::real());
      !wrong.empty())
    fail(wrong);
  const std::string group =
      rail::nhi::look_at_controller(o.request.root, c.function.address).iommu_group;
  fmt::print(
      "{0} is bound to vfio-pci; who drives it needs access to /dev/vfio/{1}{2}: 'tbtd "
      "--controller "
      "{0} --host N'\n",
      c.function.address, c.has_iommu ? "" : "noiommu-", group);
}

void run_unbind(const BindOptions& o) {
  BindPlan plan;
  if (const std::string wrong = plan_unbind(o.request, plan); !wrong.empty()) fail(wrong);
  const auto& c = plan.controller;
  if (plan.functions.empty()) {
    fmt::print("{} is not bound to vfio-pci\n", c.function.address);
    return;
  }
  if (const std::string wrong = apply_unbind(o.request.root, plan, BindingSystem::real());
      !wrong.empty())
    fail(wrong);
  for (const auto& function : plan.functions) {
    const auto now = rail::nhi::look_at_controller(o.request.root, function.address);
    const std::string& driver = now.function.driver;
    fmt::print("{} {}\n", function.address,
               driver.empty() ? "has no driver: modprobe thunderbolt, or that of the device"
                              : "has the driver " + driver);
  }
}

}  // namespace

void add_bind(CLI::App& app) {
  const auto add = [&app](const char* name, const char* what) {
    auto o = std::make_shared<BindOptions>();
    CLI::App* command = app.add_subcommand(name, what);
    command->add_option("address", o->request.address, "of the PCI device, e.g. 0000:3a:00.0")
        ->required();
    command->add_option("--root", o->request.root, "work below this folder, not below /");
    return std::pair(command, o);
  };
  const auto [bind_command, b] = add("bind", "Take a controller from the kernel, for VFIO");
  bind_command->add_flag("--yes", b->yes, "even if it is in use");
  bind_command->add_flag("--no-iommu", b->request.without_iommu,
                         "even if no IOMMU guards it: for reading registers only");
  bind_command->callback([o = b] { run_bind(*o); });
  const auto [unbind_command, u] = add("unbind", "Give a controller back to the kernel");
  unbind_command->callback([o = u] { run_unbind(*o); });
}

}  // namespace tbt::tool
