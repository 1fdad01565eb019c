// tbt nhi: a controller in this machine through VFIO, step by step. docs/rails/nhi.md says in which
// order to try things on hardware that nobody has tried yet.
#include <fmt/format.h>

#include <memory>

#include "rail/nhi/controllers.h"
#include "rail/nhi/vfio_device.h"
#include "tbt/commands.h"
#include "tbt/nhi_probe.h"

namespace tbt::tool {
namespace {

struct ProbeOptions {
  std::string address, root;
  bool no_iommu = false;
};

void probe(const ProbeOptions& o) {
  const std::string address = rail::nhi::pci_address(o.address);
  if (address.empty()) {
    fail(fmt::format("'{}' is no PCI address: write it as lspci -D does, 0000:3a:00.0", o.address));
  }
  const auto controller = rail::nhi::look_at_controller(o.root, address);
  if (!controller.function.address.empty() && !rail::nhi::is_controller(controller)) {
    fail(fmt::format("{} is no Thunderbolt or USB4 controller: 'tbt doctor' shows those there are",
                     address));
  }
  rail::nhi::VfioOptions options;
  options.address = address;
  options.root = o.root;
  options.allow_no_iommu = o.no_iommu;
  options.take_over = false;
  auto device = rail::nhi::VfioDevice::open(options);
  if (!device) fail(fmt::format("{}: {}", address, device.error().text()));
  fmt::print("{:<12}{}\n", "controller", address);
  fmt::print("{:<12}{} KiB, {} KiB of it mapped\n", "bar0", (*device)->bar().bytes() >> 10,
             (*device)->bar().mapped_bytes() >> 10);
  const NhiView view = probe_nhi(**device);
  for (const std::string& text : describe(view, (*device)->identity())) fmt::print("{}\n", text);
  if (view.gone) fail(fmt::format("{} went away while it was looked at", address));
}

}  // namespace

void add_nhi(CLI::App& app) {
  auto o = std::make_shared<ProbeOptions>();
  CLI::App* command = app.add_subcommand("nhi", "Look at a controller bound to vfio-pci");
  command->require_subcommand(1);
  CLI::App* sub = command->add_subcommand("probe", "Read its registers, and change none");
  sub->add_option("address", o->address, "of the PCI device, e.g. 0000:3a:00.0")->required();
  sub->add_option("--root", o->root, "work below this folder, not below /");
  sub->add_flag("--no-iommu", o->no_iommu, "even if no IOMMU guards it");
  sub->callback([o] { probe(*o); });
}

}  // namespace tbt::tool
