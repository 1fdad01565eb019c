// tbt nhi: a controller in this machine through VFIO, step by step. docs/rails/nhi.md says in which
// order to try things on hardware that nobody has tried yet.
#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "rail/host_memory.h"
#include "rail/nhi/controllers.h"
#include "rail/nhi/vfio_device.h"
#include "sys/monotonic_clock.h"
#include "tbt/commands.h"
#include "tbt/nhi_probe.h"
#include "tbt/nhi_ring0.h"

namespace tbt::tool {
namespace {

struct NhiOptions {
  std::string address, root;
  bool no_iommu = false;
  int seconds = 0;
};

// `memory` is what the device may be given for DMA; without any it is only looked at.
std::unique_ptr<rail::nhi::VfioDevice> open_controller(const NhiOptions& o,
                                                       std::span<std::byte> memory) {
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
  options.memory = memory;
  options.allow_no_iommu = o.no_iommu;
  options.take_over = !memory.empty();
  auto device = rail::nhi::VfioDevice::open(options);
  if (!device) fail(fmt::format("{}: {}", address, device.error().text()));
  fmt::print("{:<12}{}\n", "controller", address);
  return std::move(*device);
}

void probe(const NhiOptions& o) {
  const auto device = open_controller(o, {});
  fmt::print("{:<12}{} KiB, {} KiB of it mapped\n", "bar0", device->bar().bytes() >> 10,
             device->bar().mapped_bytes() >> 10);
  const NhiView view = probe_nhi(*device);
  for (const std::string& text : describe(view, device->identity())) fmt::print("{}\n", text);
  if (view.gone) fail(fmt::format("{} went away while it was looked at", o.address));
}

RouterAnswer ask_router(RouterReader& reader, Wait wait) {
  const auto answer = reader.read_ids(wait);
  if (!answer) fail(std::string(answer.error().text()));
  return *answer;
}

std::string answer_text(const RouterAnswer& answer) {
  return fmt::format("router {:04x}:{:04x}, {} us", answer.ids & 0xffff, answer.ids >> 16,
                     answer.took.ns / 1000);
}

// Again and again, each answer by its interrupt.
void repeat(RouterReader& reader, int seconds) {
  const Instant end = sys::monotonic_now() + Duration::from_s(seconds);
  uint64_t answers = 0, without = 0;
  Duration longest{};
  while (sys::monotonic_now() < end) {
    const RouterAnswer answer = ask_router(reader, Wait::kForInterrupt);
    ++answers;
    if (answer.without_interrupt) ++without;
    longest = std::max(longest, answer.took);
  }
  fmt::print("{:<12}{} answers in {} s, {} without their interrupt; the slowest took {} us\n",
             "repeated", answers, seconds, without, longest.ns / 1000);
}

void ring0(const NhiOptions& o) {
  auto memory = rail::HostMemory::create({.cables = 0, .ring_entries = 4, .rx_buffers = 5});
  if (!memory) fail(fmt::format("no memory for ring 0: {}", memory.error().text()));
  const auto device = open_controller(o, {(*memory)->base(), (*memory)->bytes()});
  fmt::print("{:<12}{} vectors\n", "interrupts", device->vectors());
  RouterReader reader(**memory, *device);
  if (const Status s = reader.start(); !s) fail(fmt::format("{}: {}", o.address, s.text()));
  fmt::print("{:<12}{} KiB of memory mapped\n", "dma", device->locked_bytes() >> 10);
  fmt::print("{:<12}{}\n", "by polling", answer_text(ask_router(reader, Wait::kByPolling)));
  const RouterAnswer woken = ask_router(reader, Wait::kForInterrupt);
  if (woken.without_interrupt) {
    fail("the router answers, and no interrupt says so: docs/rails/nhi.md, Interrupts");
  }
  fmt::print("{:<12}{}\n", "woken", answer_text(woken));
  std::fflush(stdout);
  if (o.seconds > 0) repeat(reader, o.seconds);
}

}  // namespace

void add_nhi(CLI::App& app) {
  CLI::App* command = app.add_subcommand("nhi", "Look at a controller bound to vfio-pci");
  command->require_subcommand(1);
  const auto add = [command](const char* name, const char* what) {
    auto o = std::make_shared<NhiOptions>();
    CLI::App* sub = command->add_subcommand(name, what);
    sub->add_option("address", o->address, "of the PCI device, e.g. 0000:3a:00.0")->required();
    sub->add_option("--root", o->root, "work below this folder, not below /");
    return std::pair(sub, o);
  };
  const auto [probe_command, p] = add("probe", "Read its registers, and change none");
  probe_command->add_flag("--no-iommu", p->no_iommu, "even if no IOMMU guards it");
  probe_command->callback([o = p] { probe(*o); });
  const auto [ring0_command, r] = add("ring0", "Reset it, and read from its router over ring 0");
  ring0_command->add_option("--repeat", r->seconds, "go on reading for so many seconds")
      ->check(CLI::Range(1, 3600));
  ring0_command->callback([o = r] { ring0(*o); });
}

}  // namespace tbt::tool
