// A device of ours, opened through the public verbs API, above the transport double.
#pragma once

#include <gtest/gtest.h>
#include <infiniband/verbs.h>

#include <cstring>
#include <string>

#include "double/transport_double.h"

namespace tbt::provider_test {

class Fixture : public testing::Test {
 protected:
  void SetUp() override {
    transport_double::reset();
    transport_double::control().devices = {{.name = "tbt0", .guid = 0x0102030405060708},
                                           {.name = "tbt0c0", .guid = 0x0102030405060709}};
    context = open("tbt0");
    ASSERT_NE(context, nullptr);
  }
  void TearDown() override {
    if (context == nullptr) return;
    EXPECT_EQ(ibv_close_device(context), 0);
  }

  static ibv_context* open(const std::string& name) {
    ibv_device** list = ibv_get_device_list(nullptr);
    ibv_context* opened = nullptr;
    for (ibv_device** d = list; d != nullptr && *d != nullptr; ++d) {
      if (name == ibv_get_device_name(*d)) opened = ibv_open_device(*d);
    }
    if (list != nullptr) ibv_free_device_list(list);
    return opened;
  }

  static transport_double::Control& control() { return transport_double::control(); }

  ibv_context* context = nullptr;
};

// Also a PD, a CQ and a QP.
class QpFixture : public Fixture {
 protected:
  void SetUp() override {
    Fixture::SetUp();
    pd = ibv_alloc_pd(context);
    cq = ibv_create_cq(context, 16, nullptr, nullptr, 0);
    ASSERT_NE(cq, nullptr);
    qp = make_qp(IBV_QPT_RC);
    ASSERT_NE(qp, nullptr);
  }
  void TearDown() override {
    EXPECT_EQ(ibv_destroy_qp(qp), 0);
    EXPECT_EQ(ibv_destroy_cq(cq), 0);
    EXPECT_EQ(ibv_dealloc_pd(pd), 0);
    Fixture::TearDown();
  }

  ibv_qp* make_qp(ibv_qp_type type) {
    ibv_qp_init_attr attr{};
    attr.send_cq = cq;
    attr.recv_cq = cq;
    attr.qp_type = type;
    attr.cap = {.max_send_wr = 32,
                .max_recv_wr = 32,
                .max_send_sge = 2,
                .max_recv_sge = 2,
                .max_inline_data = 16};
    return ibv_create_qp(pd, &attr);
  }

  ibv_pd* pd = nullptr;
  ibv_cq* cq = nullptr;
  ibv_qp* qp = nullptr;
};

}  // namespace tbt::provider_test
