# Conformance over several ranks, on every exact mesh: a covering set of world sizes with the other tests, more with `make test-hybrids`.
file(GLOB loop_cases CONFIGURE_DEPENDS RELATIVE ${PROJECT_SOURCE_DIR} cases/distrifusion/*/case.json cases/pipefusion/*/case.json)
list(TRANSFORM loop_cases REPLACE "/case.json$" "")
set(displaced_cases ${loop_cases})
list(FILTER loop_cases INCLUDE REGEX "_single$|_p1_w0$")
list(FILTER displaced_cases INCLUDE REGEX "/pipefusion/")
list(FILTER displaced_cases EXCLUDE REGEX "_p1_w0$")
# Naive and displaced patches: on as many ranks as a case has.
set(distrifusion ${CMAKE_CURRENT_SOURCE_DIR}/cases/distrifusion/distrifusion)
file(GLOB patches_2 ${distrifusion}_naive2_* ${distrifusion}_patch2_* ${distrifusion}_sd15_patch2_* cases/displaced/*_p2_*)
file(GLOB patches_3 cases/displaced/*_p3_*)
file(GLOB patches_4 ${distrifusion}_cfg2_* ${distrifusion}_patch4_* cases/displaced/*_p4_*)
file(GLOB spread_cases CONFIGURE_DEPENDS RELATIVE ${PROJECT_SOURCE_DIR} cases/sd3 cases/sd35 cases/sd3_crop cases/flux_* cases/pixart_*
     cases/hunyuandit* cases/unet_* cases/vae_*)
foreach(ranks 1 2 3 4)
  add_test(NAME conformance-${ranks} COMMAND ${MPIEXEC_EXECUTABLE} -n ${ranks} $<TARGET_FILE:conformance> ${loop_cases} ${spread_cases}
           WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  set_tests_properties(conformance-${ranks} PROPERTIES ENVIRONMENT "${mpi_environment}" TIMEOUT 600)
endforeach()
foreach(ranks 2 3 4)
  add_test(NAME conformance-patches-${ranks} COMMAND ${MPIEXEC_EXECUTABLE} -n ${ranks} $<TARGET_FILE:conformance> ${patches_${ranks}}
           WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  set_tests_properties(conformance-patches-${ranks} PROPERTIES ENVIRONMENT "${mpi_environment}" TIMEOUT 300)
endforeach()
add_test(NAME conformance-pipefusion COMMAND conformance ${displaced_cases} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
set_tests_properties(conformance-pipefusion PROPERTIES PASS_REGULAR_EXPRESSION "0 passed, 0 failed, [0-9]+ skipped")
add_test(NAME conformance-delay COMMAND sh ${CMAKE_CURRENT_SOURCE_DIR}/conformance/test_delay.sh $<TARGET_FILE:conformance>
         WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
set_tests_properties(conformance-delay PROPERTIES ENVIRONMENT "${mpi_environment}" TIMEOUT 600)
foreach(ranks 1 2 3 4 6 8)
  add_custom_command(TARGET run_hybrids POST_BUILD WORKING_DIRECTORY ${PROJECT_SOURCE_DIR}
                     COMMAND ${CMAKE_COMMAND} -E env ${mpi_environment} ${MPIEXEC_EXECUTABLE} -n ${ranks} $<TARGET_FILE:conformance> ${loop_cases} ${spread_cases})
endforeach()
add_dependencies(run_hybrids conformance)
