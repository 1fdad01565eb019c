// Which driver a controller has: the steps from the kernel's thunderbolt driver to vfio-pci and
// back, and what is lost on the way. tbt bind and tbt unbind are made of these.
//
// The functions return an empty string, or one sentence that says what is wrong and how to mend it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "rail/nhi/controllers.h"

namespace tbt::tool {

// What is done to /sys, so that tests can play the kernel.
class BindingSystem {
 public:
  virtual ~BindingSystem() = default;
  // Into a file that is there; 0 or errno.
  virtual int write(const std::string& path, std::string_view text) = 0;
  // Whether somebody has the file of an IOMMU group open.
  virtual bool is_busy(const std::string& path) = 0;

  static BindingSystem& real();
};

struct BindRequest {
  std::string root;     // /sys and /dev are below it; "": the machine's
  std::string address;  // as the user wrote it
  bool without_iommu = false;
};

struct BindPlan {
  rail::nhi::Controller controller;
  std::vector<rail::nhi::PciFunction> functions;  // whose driver changes; empty: nothing to do
  std::vector<std::string> losses;                // sentences
  bool in_use = false;                            // some of them hurt now
};

// To vfio-pci: the controller, and the functions of its IOMMU group that have another driver,
// because VFIO gives out whole groups. Bridges stay.
std::string plan_bind(const BindRequest& request, BindPlan& plan);
// Back: whatever apply_bind() took of the controller's group.
std::string plan_unbind(const BindRequest& request, BindPlan& plan);

// Does what the plan says; when that fails, what was done is undone.
std::string apply_bind(const std::string& root, const BindPlan& plan, BindingSystem& system);
std::string apply_unbind(const std::string& root, const BindPlan& plan, BindingSystem& system);

}  // namespace tbt::tool
